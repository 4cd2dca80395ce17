"""An engine that answers through somebody's HTTP server, spoken to in token ids."""

from ft_serve.engines.remote.engine import RemoteEngine

__all__ = ["RemoteEngine"]
