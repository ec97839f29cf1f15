"""The FastAPI process. Never imports torch, transformers or worker."""
