"""What the pages of the examples show: a figure for each participant, with a video and a caption."""

SEES = """(name) => {
    const figure = [...document.querySelectorAll("figure")].find((each) => each.innerText.includes(name));
    const video = figure?.querySelector("video");
    return video?.videoWidth > 0 && video.getVideoPlaybackQuality().totalVideoFrames >= 10;
}"""
"""Whether the figure with a name plays a video."""
HEARS = """(name) => {
    const figure = [...document.querySelectorAll("figure")].find((each) => each.innerText.includes(name));
    const stream = figure?.querySelector("video").srcObject;
    if (!stream?.getAudioTracks().length) return false;
    if (!figure.analyser) {
        const context = new AudioContext();
        figure.analyser = context.createAnalyser();
        context.createMediaStreamSource(stream).connect(figure.analyser);
    }
    const samples = new Float32Array(figure.analyser.fftSize);
    figure.analyser.getFloatTimeDomainData(samples);
    return samples.some((sample) => Math.abs(sample) > 0.01);
}"""
"""Whether the figure with a name sounds."""
FITS = "() => document.documentElement.scrollWidth <= innerWidth"
"""Whether the page needs no scrolling sideways."""
