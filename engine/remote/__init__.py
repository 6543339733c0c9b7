"""The engine `openai`: any OpenAI-compatible API."""
