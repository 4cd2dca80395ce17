"""Modelfiles for Ollama."""
