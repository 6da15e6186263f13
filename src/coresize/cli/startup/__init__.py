"""The folder that ``coresize run`` puts in front of PYTHONPATH; see `sitecustomize`."""
