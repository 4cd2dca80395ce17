"""An OpenAI-compatible server in front of any ``ft_core.engine.Engine``."""
