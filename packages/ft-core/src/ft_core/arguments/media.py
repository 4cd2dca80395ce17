"""What is done with images, videos and audios before a model gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ft_core.command.group import ArgumentGroup

if TYPE_CHECKING:
    from ft_core.media import MediaLimits


class MediaArguments(ArgumentGroup):
    """Images, videos and audios of rows."""

    title: ClassVar[str] = "media"

    rescale_image: int | None = None
    """Make images with more pixels (width x height) smaller, to so many; none leaves that to the model's processor."""

    def limits(self) -> MediaLimits:
        """Return what is read of a person's own rows; addresses in them are fetched where they are public."""
        from ft_core.media import MediaLimits, RemoteRules

        return MediaLimits(rescale=self.rescale_image, remote=RemoteRules())

    def check(self, given: frozenset[str]) -> None:
        """Refuse a size at which nothing can be seen."""
        from ft_core.errors import UsageError

        if self.rescale_image is not None and self.rescale_image < 4:
            raise UsageError(
                f"--rescale_image {self.rescale_image}: is the number of pixels of the whole image, such as 480000"
            )
