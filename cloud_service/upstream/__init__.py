"""Engines elsewhere: any server with OpenAI's completions API, vLLM, SGLang and llama-server among them."""
