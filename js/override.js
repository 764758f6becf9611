/** The named words in Parse Subjects' input `override`, read in the same way as by nodes/core/words/named_words.py. */

const ROLES = ["subject", "scene"];
const PREFIX = /^(subject|scene|not)[:：]\s*/i;
const PREFIX_OF = { subject: "", scene: "scene: ", "": "not: " };
const normalised = (text) => text.trim().split(/\s+/).join(" ").toLowerCase();

/**
 * The entries of an override: { source, text, role, nth, ifPresent }; source is as typed, role "" is neither, nth 0
 * means every occurrence, ifPresent that the prompt need not have the word.
 */
export function readOverride(override) {
  const entries = [];
  for (const part of override.split(/[,\n，、]/)) {
    let [text, role, nth] = [part.trim(), ROLES[0], 0];
    const prefix = PREFIX.exec(text);
    if (prefix) {
      text = text.slice(prefix[0].length).trim();
      role = prefix[1].toLowerCase() === "not" ? "" : prefix[1].toLowerCase();
    }
    const question = /^(.*\S)\s*\?$/s.exec(text);
    if (question) text = question[1];
    const numbered = /^(.+)#(\d+)$/s.exec(text);
    if (numbered) [text, nth] = [numbered[1].trim(), Number(numbered[2])];
    if (text) entries.push({ source: part.trim(), text, role, nth, ifPresent: question !== null });
  }
  return entries;
}

/** Whether an entry names a chip's word; a chip is { text, nth, count, role }, with the role that the parser chose. */
function names(entry, chip) {
  return normalised(entry.text) === normalised(chip.text) && (entry.nth === 0 || entry.nth === chip.nth);
}

const namesAny = (chips) => (entry) => chips.some((chip) => names(entry, chip));

/** The role of each chip. If the override names words for a role, only these have it; else the parser decides. */
export function rolesOf(chips, override) {
  const entries = readOverride(override).filter((entry) => !entry.ifPresent || namesAny(chips)(entry));
  const namedRoles = new Set(entries.map((entry) => entry.role));
  return chips.map((chip) => {
    const role = entries.find((entry) => names(entry, chip))?.role;
    return role ?? (namedRoles.has(chip.role) ? "" : chip.role);
  });
}

/**
 * The override that gives chip number `index` the role ("subject", "scene" or "") and lets every other chip keep its
 * role. Entries that name no chip stay as they were typed; words that are written here end in "?", so that a later
 * prompt need not have them. A role that the change does not concern, and for which the override names no word, is
 * still left to the parser.
 */
export function withRole(chips, override, index, role) {
  const entries = readOverride(override);
  const roles = rolesOf(chips, override);
  const typed = (chip) => entries.some((entry) => !entry.ifPresent && names(entry, chip));
  const write = (chip, each) =>
    PREFIX_OF[each] + chip.text + (chip.count > 1 ? `#${chip.nth}` : "") + (typed(chip) ? "" : "?");
  const before = roles[index];
  roles[index] = role;
  const moved = chips.filter((chip, i) => roles[i] !== chip.role); // away from what the parser chose
  const rolesToWrite = new Set([role, before, ...[...entries, ...moved].map((each) => each.role)]);
  const withoutChip = entries.filter((entry) => !namesAny(chips)(entry));
  const named = [];
  for (const each of ROLES.filter((name) => rolesToWrite.has(name))) {
    const having = chips.filter((_, i) => roles[i] === each);
    const isNamed = having.length || withoutChip.some((entry) => entry.role === each && !entry.ifPresent);
    // Where nothing has the role, the words that the parser would give it have to be named as having none.
    const left = isNamed ? [] : chips.filter((chip, i) => chip.role === each && roles[i] === "");
    named.push(...having.map((chip) => write(chip, each)), ...left.map((chip) => write(chip, "")));
  }
  return [...withoutChip.map((entry) => entry.source), ...named].join(", ");
}

/** Whether an entry is one of the words ("dog", "dog#2") that the prompt lacks and need not have. */
const isAbsent = (absent) => (entry) =>
  entry.ifPresent && absent.includes(entry.text + (entry.nth ? `#${entry.nth}` : ""));

/** Those of the words that the prompt lacks which the override still names. */
export function absentWords(override, absent) {
  return absent.filter((label) => readOverride(override).some(isAbsent([label])));
}

/** The override without the words that the prompt lacks. */
export function withoutAbsent(override, absent) {
  const kept = readOverride(override).filter((entry) => !isAbsent(absent)(entry));
  return kept.map((entry) => entry.source).join(", ");
}
