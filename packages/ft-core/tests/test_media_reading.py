"""What is read of images, audios and videos, and how each thing that can be wrong with one is named."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ft_core.errors import DataError
from ft_core.media import MediaError, MediaLimits
from ft_core.media.images import open_image
from ft_core.media.sounds import open_audio
from ft_core.media.sources import beside, read_bytes
from ft_core.media.testing import COLOURS, film, picture, tone
from ft_core.media.videos import open_video, spread

LIMITS = MediaLimits()


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 10))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def test_an_image_is_read_from_a_file_a_data_uri_and_base64(tmp_path: Path) -> None:
    path = picture(tmp_path / "red.png", "red")
    encoded = base64.b64encode(path.read_bytes()).decode()
    whole = np.asarray(Image.open(path).convert("RGB"))
    for source in (str(path), f"file://{path}", f"data:image/png;base64,{encoded}"):
        assert np.array_equal(np.asarray(open_image(source, LIMITS)), whole)
    large = base64.b64encode(saved(Image.effect_noise((64, 64), 90), "PNG")).decode()
    assert open_image(large, LIMITS).size == (64, 64)


def test_colours_of_cmyk_are_converted_and_pictures_stand_upright(tmp_path: Path) -> None:
    cmyk = tmp_path / "print.jpg"
    Image.new("RGB", (16, 16), COLOURS["red"]).convert("CMYK").save(cmyk, quality=95)
    red, green, blue = np.asarray(open_image(str(cmyk), LIMITS))[8, 8]
    assert red > 180
    assert green < 90
    assert blue < 90
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    turned = tmp_path / "turned.jpg"
    Image.new("RGB", (20, 10)).save(turned, exif=exif)
    assert open_image(str(turned), LIMITS).size == (10, 20)


def test_content_and_not_the_name_says_what_an_image_is(tmp_path: Path) -> None:
    named_wrongly = picture(tmp_path / "red.png").rename(tmp_path / "red.jpg")
    assert open_image(str(named_wrongly), LIMITS).size == (48, 48)


def test_large_images_are_made_smaller_in_their_own_shape(tmp_path: Path) -> None:
    path = picture(tmp_path / "wide.png", size=(400, 100))
    width, height = open_image(str(path), MediaLimits(rescale=10_000)).size
    assert width * height <= 10_000
    assert width / height == pytest.approx(4, rel=0.05)
    assert open_image(str(path), MediaLimits(rescale=40_000)).size == (400, 100)


@pytest.mark.parametrize(
    ("name", "content", "rule", "words"),
    [
        ("empty.png", b"", "empty_file", "is empty"),
        ("noise.png", b"\x89PNG\r\n\x1a\n" + b"x" * 50, "damaged_media", "is damaged"),
        ("text.png", b"this is no picture at all", "unreadable_media", "begins with"),
        ("page.png", b"<html></html>", "unreadable_media", "web page"),
        ("bomb.png", bomb(50_000, 50_000), "too_large_media", "pixels"),
        ("big.png", bomb(10_000, 9_000), "too_large_media", "10,000 x 9,000"),
        ("dot.png", saved(Image.new("RGB", (1, 1)), "PNG"), "tiny_image", "1 x 1"),
        ("line.png", saved(Image.new("RGB", (90, 1)), "PNG"), "tiny_image", "90 x 1"),
        (
            "moving.gif",
            saved(
                Image.new("RGB", (8, 8)),
                "GIF",
                save_all=True,
                append_images=[Image.new("RGB", (8, 8), "red")],
            ),
            "animated_image",
            "2 pictures",
        ),
        (
            "cut.jpg",
            saved(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")[:-600],
            "damaged_media",
            "cut off",
        ),
        (
            "cut.png",
            saved(Image.effect_noise((64, 64), 90), "PNG")[:-2000],
            "damaged_media",
            "copy or fetch it again",
        ),
    ],
)
def test_a_bad_image_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, content: bytes, rule: str, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MediaError, match=words) as caught:
        open_image(str(path), LIMITS)
    assert caught.value.rule == rule
    assert name in str(caught.value)


def test_a_wave_file_named_as_an_image_is_told_apart(tmp_path: Path) -> None:
    path = tone(tmp_path / "sound.wav").rename(tmp_path / "sound.png")
    with pytest.raises(MediaError, match="looks like an audio"):
        open_image(str(path), LIMITS)


@pytest.mark.parametrize(
    ("source", "limits", "rule"),
    [
        ("nowhere.png", LIMITS, "missing_file"),
        (".", LIMITS, "missing_file"),
        ("ftp://example.org/a.png", LIMITS, "unreadable_media"),
        ("https://example.org/a.png", LIMITS, "remote_media"),
        ("/etc/passwd", MediaLimits(files=False), "local_media"),
        ("/etc/passwd", MediaLimits(root=Path("/usr")), "local_media"),
        ("data:image/png;base64", LIMITS, "unreadable_media"),
        ("data:image/png;base64,@@@@", LIMITS, "unreadable_media"),
        ("data:text/plain,%00%01%02%03", MediaLimits(max_bytes=3), "too_large_media"),
        ("data:;base64,AAAAAAAA", MediaLimits(max_bytes=3), "too_large_media"),
        ("a\0b.png", LIMITS, "unreadable_media"),
    ],
)
def test_what_may_not_or_cannot_be_read_is_refused(
    source: str, limits: MediaLimits, rule: str
) -> None:
    with pytest.raises(MediaError) as caught:
        read_bytes(source, limits)
    assert caught.value.rule == rule


def test_links_out_of_the_folder_that_is_served_are_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    secret = picture(tmp_path / "secret.png")
    (root / "link.png").symlink_to(secret)
    with pytest.raises(MediaError, match="outside"):
        read_bytes(str(root / "link.png"), MediaLimits(root=root))
    with pytest.raises(MediaError, match="outside"):
        read_bytes(f"{root}/../secret.png", MediaLimits(root=root))
    inside = picture(root / "inside.png")
    assert read_bytes(str(inside), MediaLimits(root=root)) == inside.read_bytes()


def test_a_path_leads_on_from_the_file_that_names_it(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert beside("a.png", tmp_path) == str(tmp_path / "a.png")
    assert beside("missing.png", tmp_path) == "missing.png"
    assert beside("https://example.org/a.png", tmp_path) == "https://example.org/a.png"


def test_audio_is_mixed_to_one_channel_at_the_rate_that_is_wanted(tmp_path: Path) -> None:
    path = tone(tmp_path / "a.wav", hertz=440, seconds=1.0, rate=44_100)
    samples = open_audio(str(path), 16_000, LIMITS)
    assert samples.dtype == np.float32
    assert len(samples) == 16_000
    spectrum = np.abs(np.fft.rfft(samples))
    assert int(spectrum.argmax()) == 440  # one second: a place is a hertz


@pytest.mark.parametrize(
    ("content", "rule", "words"),
    [
        (b"RIFF\x24\0\0\0WAVEfmt ", "unreadable_media", "is no audio"),
        (b"not a sound", "unreadable_media", "is no audio"),
    ],
)
def test_a_bad_audio_is_named(tmp_path: Path, content: bytes, rule: str, words: str) -> None:
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=words) as caught:
        open_audio(str(path), 16_000, LIMITS)
    assert "0x" not in str(caught.value)
    assert caught.value.rule == rule


def test_an_audio_without_samples_or_of_many_hours_is_refused(tmp_path: Path) -> None:
    silent = tone(tmp_path / "silent.wav", seconds=0)
    with pytest.raises(MediaError, match="no samples") as caught:
        open_audio(str(silent), 16_000, LIMITS)
    assert caught.value.rule == "empty_audio"
    long = tone(tmp_path / "long.wav", seconds=2)
    with pytest.raises(MediaError, match="lasts 2 s, more than 1"):
        open_audio(str(long), 16_000, MediaLimits(max_seconds=1))


def test_frames_of_a_video_are_spread_over_it(tmp_path: Path) -> None:
    video = open_video(str(film(tmp_path / "a.mp4")), LIMITS, choose=spread(3))
    assert video.frames.shape == (3, 48, 64, 3)
    assert (video.rate, video.total, video.places) == (6.0, 12, (0, 6, 11))
    shades = video.frames.mean(axis=(1, 2, 3))
    assert shades[0] < shades[1] < shades[2]
    assert len(open_video(str(film(tmp_path / "b.mp4")), MediaLimits(max_frames=4)).frames) == 4


def test_a_bad_video_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(MediaError, match="is no video"):
        open_video(str(path), LIMITS)
    with pytest.raises(MediaError, match="lasts 2 s"):
        open_video(str(film(tmp_path / "a.mp4")), MediaLimits(max_seconds=1))
    with pytest.raises(MediaError, match="no pictures"):
        open_video(str(tone(tmp_path / "tone.wav")), LIMITS)
    assert issubclass(MediaError, DataError)
