"""Maps over the latent grid: from saliency to masks, and to something that can be looked at.

Reading order:
    saliency     the maps of several subjects: the value that crosses nodes
    filters      Gaussian smoothing, dilation, erosion
    thresholds   where a map is separated into inside and outside
    parts        the connected parts of a mask, and its holes
    masks        filters, thresholds and the combination of several maps put together
    colours      colour maps for heat maps, colours of regions
    regions      the parts of a picture: their masks, the words that they show, a picture of them
    sheet        which heat maps one picture (the sheet) shows, and where
    axes         the axes of a plot
    packing      maps in one small file, for the viewer in the browser
    points       points in a picture, as text and out of a mask
    measures     how alike two pictures are: PSNR and SSIM
"""
