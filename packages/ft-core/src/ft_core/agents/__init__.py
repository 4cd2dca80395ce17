"""Agent formats: how a model is told of its tools, how it calls them, and how its calls are read."""

from ft_core.agents.formats import AGENTS, AgentFormat, agent_of
from ft_core.agents.functions import Tool, read_tools
from ft_core.agents.parsing import ParsedAnswer, StreamParser, parse
from ft_core.agents.rows import with_tools

__all__ = [
    "AGENTS",
    "AgentFormat",
    "ParsedAnswer",
    "StreamParser",
    "Tool",
    "agent_of",
    "parse",
    "read_tools",
    "with_tools",
]
