"""A folder that transformers opens by itself: weights, configs, tokenizer, and the code of the model."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from safetensors.torch import save_file

from utils.config import REPOSITORY

from .tvtsv2 import TVTSv2

MODEL = Path(__file__).parent
DATA = REPOSITORY / "data_loader"
LICENCE = "License.txt"
IMPORTED = re.compile(r"^\s*from \.(\w+) import", flags=re.MULTILINE)
AUTO_MAP = {
    "AutoConfig": "modeling_tvtsv2.TVTSv2Config",
    "AutoModel": "modeling_tvtsv2.TVTSv2Model",
    "AutoProcessor": "processing_tvtsv2.TVTSv2Processor",
}


def write_transformers_folder(model: TVTSv2, folder: str | Path) -> None:
    """Write what `AutoModel` and `AutoProcessor.from_pretrained(folder, trust_remote_code=True)` open.

    The code is copied as it is here, but for two things that transformers wants: all files lie side by side,
    and the Triton kernels, which not every machine can import, stay behind.
    """
    from .modeling_tvtsv2 import TVTSv2Config  # late: transformers takes seconds

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = TVTSv2Config.of(model).to_diff_dict() | {
        "architectures": ["TVTSv2Model"],
        "auto_map": {key: AUTO_MAP[key] for key in ("AutoConfig", "AutoModel")},
        "dtype": "float32",
    }
    variant = model.variant
    processor = {
        "processor_class": "TVTSv2Processor",
        "auto_map": {"AutoProcessor": AUTO_MAP["AutoProcessor"]},
        "image_size": variant.image_size,
        "num_frames": variant.num_frames,
        "context_length": variant.context_length,
        "transform": "features",
    }
    _write(folder / "config.json", config)
    _write(folder / "processor_config.json", processor)
    _write_tokenizer(folder, variant.context_length)
    for name, text in (travelling(MODEL, "modeling_tvtsv2") | travelling(DATA, "processing_tvtsv2")).items():
        (folder / name).write_text(text, encoding="utf-8")
    about = ModelCardData(
        library_name="transformers",
        license="other",
        license_link="README.md",
        tags=["video-text-retrieval", "zero-shot-video-classification", "custom_code"],
    )
    template = (MODEL / "transformers_card.md").read_text(encoding="utf-8")
    card = ModelCard.from_template(
        about, template_str=template, variant=variant, sort_head=config["sort_head"], licence=LICENCE
    )
    card.save(folder / "README.md")
    shutil.copyfile(REPOSITORY / LICENCE, folder / LICENCE)
    state = {f"tvtsv2.{name}": value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copymode(
        folder / "config.json", folder / "model.safetensors"
    )  # safetensors' only its owner may read


def travelling(source: Path, module: str) -> dict[str, str]:
    """A module of the folder `source` and all that it imports relatively: name in the new folder -> text."""
    found: dict[str, str] = {}
    wanted = [module]
    while wanted:
        name = wanted.pop()
        if f"{name}.py" in found:
            continue
        path = source / f"{name}.py"
        if name.startswith("kernels"):
            path = source / "kernels" / f"{name.removeprefix('kernels').removeprefix('_') or '__init__'}.py"
        text = path.read_text(encoding="utf-8")
        if name.startswith("kernels"):
            text = _flat_kernels(text)
        found[f"{name}.py"] = text
        wanted += IMPORTED.findall(text)
    direct = IMPORTED.findall(found[f"{module}.py"])
    others = sorted(
        name.removesuffix(".py") for name in found if name.removesuffix(".py") not in (module, *direct)
    )
    found[f"{module}.py"] += "".join(
        [
            "\n# Transformers before version 5 copies no more than what this file itself imports.\n",
            *(f"from .{name} import __name__ as _{name}  # noqa\n" for name in others),
        ]
    )
    return found


def _flat_kernels(text: str) -> str:
    """A file of model/kernels/ as one of the folder above it, without Triton."""
    text = re.sub(r"^from \.(?=\w)", "from .kernels_", text, flags=re.MULTILINE)
    text = re.sub(r"^from \.\.(?=\w)", "from .", text, flags=re.MULTILINE)
    text = re.sub(r"^if HAS_TRITON:\n(?: .*\n)+", "", text, flags=re.MULTILINE)
    return re.sub(
        r"^HAS_TRITON = .*", "HAS_TRITON = False  # the kernels stayed behind", text, flags=re.MULTILINE
    )


def _write_tokenizer(folder: Path, context_length: int) -> None:
    """CLIP's tokenizer as the library tokenizers has it, for texts that the processor has cleaned."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    from CLIP.tokenizer import byte_pairs

    pairs = byte_pairs()
    begin, end = pairs.specials
    tokenizer = Tokenizer(
        models.BPE(pairs.vocabulary, pairs.merges, end_of_word_suffix="</w>", fuse_unk=False)
    )
    tokenizer.normalizer = normalizers.Lowercase()
    words = pre_tokenizers.Split(Regex(pairs.words), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([begin, end])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(token, pairs.vocabulary[token]) for token in pairs.specials],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "bos_token": begin,
        "eos_token": end,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids"],
    }
    _write(folder / "tokenizer_config.json", about)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
