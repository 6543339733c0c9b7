"""The gateway: OpenAI-compatible API over HTTP, SSE from tails."""
