"""MSR-VTT, with all the cuts of the literature."""

from pathlib import Path

from data_loader.caption_index import read_index
from data_loader.lists import need_file, need_folder, need_text, prepare_hint, read_json, read_lines
from data_loader.records import CaptionRecords

LISTS = Path("high-quality/structured-symlinks")
CUTS = {  # cut: (training list, test list)
    "jsfusion": ("train_list_jsfusion.txt", "val_list_jsfusion.txt"),
    "miech": ("train_list_miech.txt", "test_list_miech.txt"),
    "full-val": ("train_list_full.txt", "val_list_full.txt"),
    "full-test": ("train_list_full.txt", "test_list_full.txt"),
    "val": ("train_list.txt", "val_list.txt"),
    "public_server_val": ("train_list.txt", "public_server_val.txt"),
    "public_server_test": ("train_list.txt", "public_server_test.txt"),
}


def msrvtt(split: str, root: Path, meta: Path, *, cut: str = "jsfusion") -> CaptionRecords:
    """`meta`/msrvtt/MSR_VTT.json and lists of videos below `root`; `root`/videos/all/<image_id>.mp4.

    `cut` says which lists; the 1k-A test of the literature is "jsfusion". There the query of a test video is
    the caption that jsfusion_val_caption_idx.pkl names, elsewhere the first. Videos are sorted by image_id.
    """
    if cut not in CUTS:
        raise ValueError(f"MSR-VTT has no cut {cut!r}; there are {', '.join(CUTS)}")
    hint = prepare_hint("msrvtt")
    need_folder(root / "videos/all", "the videos of MSR-VTT, <image_id>.mp4 each")
    list_path = root / LISTS / CUTS[cut][split != "train"]
    wanted = sorted(set(read_lines(list_path, f"the videos of the cut {cut!r}", hint)))
    captions_path = meta / "msrvtt/MSR_VTT.json"
    captions = read_captions(captions_path, hint)
    unknown = [name for name in wanted if name not in captions]
    if unknown:
        raise ValueError(
            f"{len(unknown)} videos of {list_path} have no caption in {captions_path}, e.g. {unknown[0]}"
        )
    if split != "train":
        queries = (
            read_queries(root / LISTS / "jsfusion_val_caption_idx.pkl", hint) if cut == "jsfusion" else None
        )
        captions = {name: [query(name, captions[name], queries)] for name in wanted}
    pairs = [(name, caption) for name in wanted for caption in captions[name]]
    names, texts = zip(*pairs, strict=True)
    return CaptionRecords(root, names, texts, "videos/all/{}.mp4".format)


def read_captions(path: Path, hint: str) -> dict[str, list[str]]:
    """The captions of every video, in their order."""
    data = read_json(path, "the annotations of MSR-VTT", hint)
    captions: dict[str, list[str]] = {}
    try:
        for number, annotation in enumerate(data["annotations"]):
            place = f"{path}: annotation {number}"
            name = need_text(annotation["image_id"], f"{place}, image_id")
            caption = need_text(annotation["caption"], f"{place} ({name}), caption")
            captions.setdefault(name, []).append(caption)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f'{path} needs "annotations", each with "image_id" and "caption": {error!r}'
        ) from error
    return captions


def read_queries(path: Path, hint: str) -> dict[str, int]:
    """Which caption of each video is its query."""
    return read_index(need_file(path, "which caption of each video is its query", hint))


def query(name: str, captions: list[str], numbers: dict[str, int] | None) -> str:
    """The caption that a test video is searched by; the first where no numbers are given."""
    number = 0 if numbers is None else numbers.get(name, -1)
    if not 0 <= number < len(captions):
        raise ValueError(
            f"jsfusion_val_caption_idx.pkl names no caption of {name}, which has {len(captions)} "
            "in MSR_VTT.json: do the two files belong together?"
        )
    return captions[number]
