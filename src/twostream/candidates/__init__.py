"""Candidates: the instances that a round proposes, with everything that is known about each without a model.

    candidate    one proposed instance; from a segmentation to candidates
    identity     which candidates of a round are the same as known ones, and keep their id
    table        candidates as a Parquet table
    thresholds   the rules that choose the thresholds of a round
    tuning       the search for decoding settings on the validation box
    truth        the truth rule for a single candidate
    sources      another model's output, or an existing connectome, in place of the segmentation network S
    objects      reading tables of objects, one kind of source
    painting     such objects as labels of voxels
    patches      what a patch is: settings, the (image, mask) pair
    pose         how a candidate lies: central section and angle
    sampling     the planes of a patch from a window of voxels
    cutting      patches of candidates cut from a volume
    crops        random crops of the raw image

Knows volumes and tasks; must not know torch, projects, rounds or answers of a ledger.
"""
