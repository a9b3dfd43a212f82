"""The Python packages that the core needs beyond Slicer's own: looked for and installed only when first needed."""

import importlib.util
from pathlib import Path

PYTORCH = ("torch", "torchvision")
PACKAGES = ("matplotlib", "safetensors", "skimage")
TORCH_REQUIREMENT = ">=2.6"
TORCHVISION_REQUIREMENT = ">=0.21"
REQUIREMENTS_FILE = Path(__file__).parents[1] / "Resources" / "LNHGRequirements.txt"
REQUESTER = "Lung nodules (LNHG)"


class InstallLogic:
    """Sees to it that the child process finds its packages."""

    def missing(self) -> list[str]:
        """Return the import names that are not there; nothing is imported."""
        return [name for name in (*PYTORCH, *PACKAGES) if importlib.util.find_spec(name) is None]

    def ensure(self) -> None:
        """Install what is missing, after asking the user.

        :raises RuntimeError: if the user declines, the PyTorch extension is not there, or installing fails.
        """
        missing = self.missing()
        if any(name in PYTORCH for name in missing):
            self._installTorch()
        if any(name in PACKAGES for name in missing):
            self._installPackages()
        if self.missing():
            raise RuntimeError(f"Python packages are missing: {', '.join(self.missing())}; see the Python console.")

    def _installTorch(self) -> None:
        try:
            import PyTorchUtils
        except ModuleNotFoundError as error:
            raise RuntimeError(
                'The extension "PyTorch" is not installed: install it in the Extensions Manager, restart Slicer '
                "and try again."
            ) from error
        torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=True,
            torchVersionRequirement=TORCH_REQUIREMENT,
            torchvisionVersionRequirement=TORCHVISION_REQUIREMENT,
        )
        if torch is None:
            raise RuntimeError("PyTorch was not installed: nodules cannot be segmented without it.")

    def _installPackages(self) -> None:
        from slicer.packaging import load_requirements, pip_ensure

        pip_ensure(load_requirements(REQUIREMENTS_FILE), requester=REQUESTER)
