"""What both processes remember. Imports neither fastapi nor torch nor celery."""
