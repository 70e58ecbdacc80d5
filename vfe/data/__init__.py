"""Videos in: sources, decoding, frame sampling, augmentation, pipelines. Never imports JAX."""
