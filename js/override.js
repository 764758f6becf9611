/** The named words in Parse Subjects' input `override`, read in the same way as by nodes/core/words/named_words.py. */

const ROLES = ["subject", "scene"];
const normalised = (text) => text.trim().split(/\s+/).join(" ").toLowerCase();

/** The entries of an override: { source, text, role, nth }; source is as typed, nth 0 means every occurrence. */
export function readOverride(override) {
  const entries = [];
  for (const part of override.split(/[,\n]/)) {
    let [text, role, nth] = [part.trim(), ROLES[0], 0];
    for (const prefix of ROLES) {
      if (text.toLowerCase().startsWith(`${prefix}:`)) [text, role] = [text.slice(prefix.length + 1).trim(), prefix];
    }
    const numbered = /^(.+)#(\d+)$/s.exec(text);
    if (numbered) [text, nth] = [numbered[1].trim(), Number(numbered[2])];
    if (text) entries.push({ source: part.trim(), text, role, nth });
  }
  return entries;
}

/** Whether an entry names a chip's word; a chip is { text, nth, count, role }, with the role that the parser chose. */
function names(entry, chip) {
  return normalised(entry.text) === normalised(chip.text) && (entry.nth === 0 || entry.nth === chip.nth);
}

/** The role of each chip. If the override names words for a role, only these have it; else the parser decides. */
export function rolesOf(chips, override) {
  const entries = readOverride(override);
  const namedRoles = new Set(entries.map((entry) => entry.role));
  return chips.map((chip) => {
    const named = entries.find((entry) => names(entry, chip));
    return named ? named.role : namedRoles.has(chip.role) ? "" : chip.role;
  });
}

/**
 * The override that gives chip number `index` the role ("subject", "scene" or "") and lets every other chip keep its
 * role. Entries that name no chip stay as they were typed. A role that the change does not concern, and for which the
 * override names no word, is still left to the parser.
 */
export function withRole(chips, override, index, role) {
  const entries = readOverride(override);
  const roles = rolesOf(chips, override);
  const rolesToWrite = new Set([...entries.map((entry) => entry.role), role, roles[index]]);
  roles[index] = role;
  const withoutChip = entries.filter((entry) => !chips.some((chip) => names(entry, chip))).map((entry) => entry.source);
  const named = [];
  for (const each of ROLES.filter((name) => rolesToWrite.has(name))) {
    const prefix = each === "scene" ? "scene: " : "";
    chips.forEach((chip, i) => {
      if (roles[i] === each) named.push(prefix + chip.text + (chip.count > 1 ? `#${chip.nth}` : ""));
    });
  }
  return [...withoutChip, ...named].join(", ");
}
