"""Slicer's module SampleData as far as the project uses it: the list of sources, with the signatures of Slicer 5.12."""

import slicer

BUILT_IN = "General"


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

    def __eq__(self, other) -> bool:
        return str(vars(self)) == str(vars(other))

    def click(self):
        """Do what the source's button in the module does."""
        return self.customDownloader(self)


class SampleDataLogic:
    """Manages slicer.modules.sampleDataSources; making one registers Slicer's own scans."""

    def __init__(self, logMessage=None) -> None:
        chest = SampleDataSource("CTChest", None, "file:CT-chest.nrrd", "CT-chest.nrrd", "CTChest")
        self._append(BUILT_IN, chest)

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
