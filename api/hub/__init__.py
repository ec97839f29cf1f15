"""The read side of the Hugging Face Hub's protocol: jobs' checkpoints as models `jobs/<job id>`."""
