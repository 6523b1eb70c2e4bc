"""Words for messages."""


def counted(number: int, noun: str) -> str:
    """A number and its noun, which is given in the plural: "1 video", "2 videos", "1 class"."""
    if number != 1:
        return f"{number} {noun}"
    return f"1 {noun.removesuffix('es') if noun.endswith('sses') else noun.removesuffix('s')}"
