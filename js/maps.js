/** Reads the file of maps that nodes/core/maps/packing.py writes: values at a place, and maps as pictures. */

const LEVELS = 255; // a map's values are stored as shares of its peak, in 255 steps

export class Maps {
  /** @param {ArrayBuffer} buffer the whole file; throws RangeError or SyntaxError if it is not a file of maps. */
  constructor(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
    [, this.batch, this.height, this.width] = header.shape;
    this.words = header.words;
    this.frames = header.frames;
    this.index = header.maps;
    /** How often the maps may be refined that are shown, and how often those are that are shown now. */
    this.powers = header.powers;
    this.power = this.powers.at(-1);
    this.count = header.shape[0] / this.powers.length; // of the maps of one power
    this.peaks = header.peaks;
    this.shared = header.shared;
    this.spatialScale = header.spatial_scale;
    this.levels = new Uint8Array(buffer, 4 + length, header.shape.reduce((a, b) => a * b));
    this.colours = Uint8Array.from(header.colours.match(/../g), (pair) => parseInt(pair, 16));
    let start = 4 + length + this.levels.length;
    this.pictures = header.pictures.map((size) => {
      start += size;
      return new Blob([new Uint8Array(buffer, start - size, size)], { type: "image/png" });
    });
  }

  /** The highest value of all maps that are refined as often as those shown. */
  get high() {
    const first = this.count * this.powers.indexOf(this.power);
    return Math.max(...this.peaks.slice(first, first + this.count).flat());
  }

  /** The word's value at a cell, in multiples of its map's mean; null if the frame (a step or layer) lacks the word. */
  value(word, frame, item, column, row) {
    const map = this.#map(word, frame);
    if (map === null) return null;
    const level = this.levels[this.#start(map, item) + row * this.width + column];
    return (level / LEVELS) * this.peaks[map][item];
  }

  /** All words of a frame with their values at a cell, highest first; equal ones in the order of the prompt. */
  ranked(frame, item, column, row) {
    return this.words
      .map((word, i) => ({ word, index: i, value: this.value(i, frame, item, column, row) }))
      .filter(({ value }) => value !== null)
      .sort((a, b) => b.value - a.value);
  }

  /** One map in colours, one pixel per cell; null if the frame lacks the word. */
  picture(word, frame, item) {
    const map = this.#map(word, frame);
    if (map === null) return null;
    const size = this.width * this.height;
    const levels = this.levels.subarray(this.#start(map, item), this.#start(map, item) + size);
    const peak = this.peaks[map][item] / LEVELS;
    const low = this.shared ? 0 : levels.reduce((a, b) => Math.min(a, b), LEVELS) * peak;
    const high = this.shared ? this.high : this.peaks[map][item];
    const scale = high > low ? LEVELS / (high - low) : 0;
    const picture = new ImageData(this.width, this.height);
    for (let i = 0; i < size; i++) {
      const colour = 3 * Math.round((levels[i] * peak - low) * scale);
      picture.data[4 * i] = this.colours[colour];
      picture.data[4 * i + 1] = this.colours[colour + 1];
      picture.data[4 * i + 2] = this.colours[colour + 2];
      picture.data[4 * i + 3] = 255;
    }
    return picture;
  }

  /** The place of a word's map among those of the file. */
  #map(word, frame) {
    const map = this.index[frame][word];
    return map === null ? null : this.count * this.powers.indexOf(this.power) + map;
  }

  #start(map, item) {
    return (map * this.batch + item) * this.width * this.height;
  }
}
