"""What watches a run: the log file, the progress line, TensorBoard, and stopping."""

from ft_train.callbacks.board import TensorBoard
from ft_train.callbacks.journal import Journal
from ft_train.callbacks.patience import Patience
from ft_train.callbacks.progress import Progress
from ft_train.callbacks.stop import StopOnRequest

__all__ = ["Journal", "Patience", "Progress", "StopOnRequest", "TensorBoard"]
