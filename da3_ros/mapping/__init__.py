"""The incremental map: submaps of voxels, fusion and saving."""
