/**
 * Changes of a layout's text: a box that is moved, added, removed or called otherwise changes its own entry there, in
 * the form in which that is written, and nothing else.
 *
 * A layout is { text, boxes }, as the server reads it (nodes/host/layouts.py): boxes [{ box: { words, left, top, right,
 * bottom }, span, words_span, quoted, sites: [{ start, end, names, full, suffix }], colour }] in the order of the text;
 * sides are shares of the picture, places count characters, not JavaScript's units.
 */

const CORNERS = ["left", "top", "right", "bottom"];
const SIZES = ["left", "top", "width", "height"];
const CLOSING = { "“": "”" };

/** Puts texts in the place of parts: edits [{ start, end, put }]. All places of the boxes follow. */
function edited({ text, boxes }, edits) {
  const characters = [...text];
  for (const { start, end, put } of edits.toSorted((a, b) => b.start - a.start)) characters.splice(start, end - start, put);
  const longer = ({ start, end, put }) => [...put].length - (end - start);
  const follow = (at) => at + edits.filter(({ end }) => end <= at).reduce((sum, edit) => sum + longer(edit), 0);
  const moved = boxes.map((each) => ({
    ...each,
    span: each.span.map(follow),
    words_span: each.words_span.map(follow),
    sites: each.sites.map((site) => ({ ...site, start: follow(site.start), end: follow(site.end) })),
  }));
  return { text: characters.join(""), boxes: moved };
}

/** How many decimals a number has whose unit makes this number of the whole picture. */
const decimals = (full) => (full <= 1 ? 3 : full <= 100 ? 1 : 0);

/** Both ends of a span in whole steps of the unit, at least one step long and inside the picture. */
function rounded(start, end, full) {
  const [step, most] = [10 ** decimals(full), Math.round(full * 10 ** decimals(full))];
  const first = Math.max(0, Math.min(most - 1, Math.round(start * full * step)));
  const last = Math.max(first + 1, Math.min(most, Math.round(end * full * step)));
  return [first, last].map((each) => each / step / full);
}

/** The numbers of a box in the units of its sites, and the sides that they say. */
function numbersOf(sites, sides) {
  const full = Object.fromEntries(sites.flatMap((site) => site.names.map((name, i) => [name, site.full[i]])));
  const [left, right] = rounded(sides.left, sides.right, full.left);
  const [top, bottom] = rounded(sides.top, sides.bottom, full.top);
  const said = { left, top, right, bottom, width: right - left, height: bottom - top };
  const numbers = Object.entries(full).map(([name, each]) => [name, String(Number((said[name] * each).toFixed(decimals(each))))]);
  return { numbers: Object.fromEntries(numbers), said: { left, top, right, bottom } };
}

/** The layout with a box at other sides: { left, top, right, bottom }. A named place becomes numbers in percent. */
export function moved(layout, index, sides) {
  const { sites } = layout.boxes[index];
  const { numbers, said } = numbersOf(sites, sides);
  const put = (site) => site.names.map((name) => numbers[name] + site.suffix).join(", ");
  const result = edited(layout, sites.map((site) => ({ start: site.start, end: site.end, put: put(site) })));
  const changed = result.boxes[index];
  changed.box = { ...changed.box, ...said };
  changed.sites = changed.sites.flatMap((site) => {
    let { start } = site;
    return site.names.map((name, i) => {
      const end = start + numbers[name].length;
      const one = { ...site, start, end, names: [name], full: [site.full[i]], suffix: "" };
      start = end + site.suffix.length + 2;
      return one;
    });
  });
  return result;
}

/** Words as they stand in the text: without what would end the entry, or with it escaped. */
function written(words, { text, boxes }, index) {
  const { quoted, words_span: [start] } = boxes[index];
  if (!quoted) return words.replace(/[;；\s]+/g, " ").trim();
  const quote = [...text][start - 1];
  const ends = new Set(["\\", CLOSING[quote] ?? quote]);
  return [...words].map((each) => (ends.has(each) ? `\\${each}` : each)).join("");
}

/** The layout with other words for a box; the same layout where no words are left. */
export function renamed(layout, index, words) {
  const put = written(words, layout, index);
  if (!put.trim()) return layout;
  const [start, end] = layout.boxes[index].words_span;
  const result = edited(layout, [{ start, end, put }]);
  const changed = result.boxes[index];
  changed.box = { ...changed.box, words: changed.quoted ? words : put };
  return result;
}

/** The layout without a box. */
export function removed(layout, index) {
  const { boxes } = layout;
  if (boxes.length === 1) return { text: "", boxes: [] };
  const isLast = index === boxes.length - 1;
  const [start, end] = isLast
    ? [boxes[index - 1].span[1], boxes[index].span[1]]
    : [boxes[index].span[0], boxes[index + 1].span[0]];
  return edited({ ...layout, boxes: boxes.toSpliced(index, 1) }, [{ start, end, put: "" }]);
}

/** The layout with one more box at its end, written as the one before it; corners: whether the first has corners. */
export function added({ text, boxes }, words, sides, corners) {
  if (!boxes.length) {
    const place = { start: words.length + 2, end: words.length + 2, names: corners ? CORNERS : SIZES, full: [100, 100, 100, 100], suffix: "%" };
    const span = [0, words.length + 2];
    const first = { box: { words, ...sides }, span, words_span: [0, words.length], quoted: false, sites: [place], colour: "#808080" };
    return moved({ text: `${words}: `, boxes: [first] }, 0, sides);
  }
  const characters = [...text];
  const [before, last] = [boxes.at(-2), boxes.at(-1)];
  const [start, end] = last.span;
  const between = before ? characters.slice(before.span[1], start).join("") : last.quoted ? ", " : "\n";
  const by = end - start + [...between].length;
  const follow = ([from, to]) => [from + by, to + by];
  const copy = {
    ...last,
    span: follow(last.span),
    words_span: follow(last.words_span),
    sites: last.sites.map((site) => ({ ...site, start: site.start + by, end: site.end + by })),
  };
  const entry = between + characters.slice(start, end).join("");
  const longer = { text: characters.toSpliced(end, 0, entry).join(""), boxes: [...boxes, copy] };
  return moved(renamed(longer, boxes.length, words), boxes.length, sides);
}
