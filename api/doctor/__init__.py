"""What is wrong with an installation, and what to do about it: `python -m api.doctor`, or `sentinel doctor`."""
