"""Any model folder, by Hugging Face transformers."""
