"""Adapters to models: the only importer of vllm, transformers, openai and xllamacpp. Serves none."""
