"""Stages and helpers from the command line: python -m vfe.tools.<name>."""
