"""OpenAI's requests and answers as pydantic models: what is taken is checked, what is sent has one form."""
