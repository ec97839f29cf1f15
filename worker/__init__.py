"""The Celery side: claims jobs, runs them in child processes, publishes what they made."""
