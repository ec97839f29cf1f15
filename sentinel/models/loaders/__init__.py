"""Models and tokenizers from folders, the Hub and the package; safetensors only, never any code."""
