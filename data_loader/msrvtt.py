"""MSR-VTT, with all the cuts of the literature."""

from pathlib import Path
from typing import ClassVar

from data_loader.captions import CaptionDataset, Pairs
from data_loader.lists import need_file, need_folder, need_text, prepare_hint, read_json, read_lines
from data_loader.safe_pickle import read_index


class MSRVTT(CaptionDataset):
    """`meta`/msrvtt/MSR_VTT.json and lists of videos below `root`; `root`/videos/all/<image_id>.mp4.

    `cut` says which lists; the 1k-A test of the literature is "jsfusion". There the query of a test video is
    the caption that jsfusion_val_caption_idx.pkl names, elsewhere the first. Videos are sorted by image_id.
    """

    name = "msrvtt"
    LISTS = Path("high-quality/structured-symlinks")
    CUTS: ClassVar = {  # cut: (training list, test list)
        "jsfusion": ("train_list_jsfusion.txt", "val_list_jsfusion.txt"),
        "miech": ("train_list_miech.txt", "test_list_miech.txt"),
        "full-val": ("train_list_full.txt", "val_list_full.txt"),
        "full-test": ("train_list_full.txt", "test_list_full.txt"),
        "val": ("train_list.txt", "val_list.txt"),
        "public_server_val": ("train_list.txt", "public_server_val.txt"),
        "public_server_test": ("train_list.txt", "public_server_test.txt"),
    }

    def __init__(self, split: str, *, cut: str = "jsfusion", **common):
        if cut not in self.CUTS:
            raise ValueError(f"MSR-VTT has no cut {cut!r}; there are {', '.join(self.CUTS)}")
        self.cut = cut
        super().__init__(split, **common)

    def video_file_name(self, name: str) -> str:
        return f"videos/all/{name}.mp4"

    def pairs(self) -> Pairs:
        hint = prepare_hint(self.name)
        need_folder(self.root / "videos/all", "the videos of MSR-VTT, <image_id>.mp4 each")
        list_path = self.root / self.LISTS / self.CUTS[self.cut][self.split != "train"]
        wanted = set(read_lines(list_path, f"the videos of the cut {self.cut!r}", hint))
        captions = self.read_captions(hint)
        unknown = sorted(wanted - captions.keys())
        if unknown:
            raise ValueError(
                f"{len(unknown)} videos of {list_path} have no caption in "
                f"{self.meta / 'msrvtt/MSR_VTT.json'}, e.g. {unknown[0]}"
            )
        if self.split == "train":
            pairs = [(name, caption) for name in sorted(wanted) for caption in captions[name]]
        else:
            numbers = self.query_numbers(hint)
            pairs = [(name, self.query(name, captions[name], numbers)) for name in sorted(wanted)]
        names, texts = zip(*pairs, strict=True) if pairs else ((), ())
        return names, texts

    def read_captions(self, hint: str) -> dict[str, list[str]]:
        path = self.meta / "msrvtt/MSR_VTT.json"
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

    def query_numbers(self, hint: str) -> dict[str, int] | None:
        """Which caption of each video is its query; None: the first."""
        if self.cut != "jsfusion":
            return None
        path = self.root / self.LISTS / "jsfusion_val_caption_idx.pkl"
        return read_index(need_file(path, "which caption of each video is its query", hint))

    def query(self, name: str, captions: list[str], numbers: dict[str, int] | None) -> str:
        number = 0 if numbers is None else numbers.get(name, -1)
        if not 0 <= number < len(captions):
            raise ValueError(
                f"jsfusion_val_caption_idx.pkl names no caption of {name}, which has {len(captions)} "
                "in MSR_VTT.json: do the two files belong together?"
            )
        return captions[number]
