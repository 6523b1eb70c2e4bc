"""From the annotation files that each data set's own site distributes to the lists in `meta_data`."""
