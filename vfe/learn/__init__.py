"""What learning needs: state, optimiser, mesh and sharding rules, mixing of samples."""
