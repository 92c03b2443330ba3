"""UFS and FFS file systems, read and written offline: superblocks, growing, check hashes.

Works on a descriptor of the partition and never mounts. Both byte orders, UFS1 (FFS1) and UFS2 (FFS2).
"""
