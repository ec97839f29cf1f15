"""What makes a pruned model small for good: surgery and export."""
