"""Slicer's module SampleData as far as the project uses it, with the signatures and the ways of Slicer 5.12.

As there, a custom downloader is for the buttons alone: scripts go through addresses, files in the cache and checksums.
"""

import urllib.request
from pathlib import Path

import slicer

BUILT_IN = "General"
TRIES = 3


class SampleDataSource:
    """A scan to download; without a list of files it is one file."""

    def __init__(
        self,
        sampleName=None,
        sampleDescription=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        checksums=None,
        loadFiles=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileType=None,
        loadFileProperties=None,
    ) -> None:
        if not isinstance(uris, str):
            raise TypeError(f"uris is {uris!r}")
        self.sampleName, self.sampleDescription = sampleName, sampleDescription or sampleName
        self.uris, self.fileNames, self.nodeNames, self.checksums = [uris], [fileNames], [nodeNames], [checksums]
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName

    def __str__(self) -> str:
        files = zip(self.uris, self.fileNames, self.nodeNames, self.checksums, strict=True)
        return str([self.sampleName, self.customDownloader, self.thumbnailFileName, *files])

    def __eq__(self, other) -> bool:
        return str(self) == str(other)

    def click(self):
        """Do what the source's button in the module does."""
        return self.customDownloader(self)


class SampleDataLogic:
    """Manages slicer.modules.sampleDataSources; making one registers Slicer's own scans."""

    def __init__(self, logMessage=None) -> None:
        chest = SampleDataSource("CTChest", None, "file:CT-chest.nrrd", "CT-chest.nrrd", "CTChest")
        self._append(BUILT_IN, chest)

    def downloadSample(self, sampleName):
        return self.downloadSamples(sampleName)[0]

    def downloadSamples(self, sampleName):
        source = self.sourceForSampleName(sampleName)
        return [] if source is None else self.downloadFromSource(source)

    def downloadFromSource(self, source):
        nodes, paths = [], []
        for uri, name, nodeName, checksum in zip(
            source.uris, source.fileNames, source.nodeNames, source.checksums, strict=True
        ):
            for _ in range(TRIES):
                try:
                    paths.append(self._fileInCache(uri, name, checksum))
                except OSError:
                    continue
                node = _loaded(paths[-1], nodeName)
                if node is not None:
                    nodes.append(node)
                    break
                paths[-1].unlink(missing_ok=True)
        return nodes or paths

    def _fileInCache(self, uri, name, checksum) -> Path:
        """Return a file, which is gone again where its checksum is not the expected one."""
        path = Path(slicer.mrmlScene.GetCacheManager().GetRemoteCacheDirectory(), name)
        algorithm, digest = slicer.util.extractAlgoAndDigest(checksum)
        if not path.exists() or path.stat().st_size == 0:
            urllib.request.urlretrieve(uri, path)
        if algorithm and slicer.util.computeChecksum(algorithm, str(path)) != digest:
            path.unlink()
        return path

    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileType="VolumeFile",
        loadFiles=None,
        loadFileProperties=None,
        checksums=None,
    ) -> None:
        source = SampleDataSource(
            sampleName,
            None,
            uris,
            fileNames,
            nodeNames,
            checksums,
            customDownloader=customDownloader,
            thumbnailFileName=thumbnailFileName,
        )
        SampleDataLogic._append(category, source)

    def sourceForSampleName(self, sampleName):
        sources = (source for each in slicer.modules.sampleDataSources.values() for source in each)
        return next((source for source in sources if source.sampleName == sampleName), None)

    @staticmethod
    def _append(category: str, source: SampleDataSource) -> None:
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        sources = slicer.modules.sampleDataSources.setdefault(category, [])
        if source not in sources:
            sources.append(source)


def _loaded(path: Path, name: str):
    """Load a volume and forget its file; None where it cannot be read."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    if path.exists() and storage.ReadData(node):
        return node
    slicer.mrmlScene.RemoveNode(node)
    return None
