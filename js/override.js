/** The override of Parse Subjects, read and written as nodes/core/words/named_words.py reads it. */

const ROLES = ["subject", "scene"];
const plain = (text) => text.trim().split(/\s+/).join(" ").toLowerCase();

/** Its entries: { source, text, role, nth }; nth 0 means every occurrence. */
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

/** Whether an entry names a chip ({ text, nth, count, role }). */
function names(entry, chip) {
  return plain(entry.text) === plain(chip.text) && (entry.nth === 0 || entry.nth === chip.nth);
}

/** The role of each chip: as the override names it; roles that it does not name stay with the parser. */
export function rolesOf(chips, override) {
  const entries = readOverride(override);
  const taken = new Set(entries.map((entry) => entry.role));
  return chips.map((chip) => {
    const named = entries.find((entry) => names(entry, chip));
    return named ? named.role : taken.has(chip.role) ? "" : chip.role;
  });
}

/**
 * The override that gives chip number `index` the role ("subject", "scene" or ""), and every other one the role it has.
 * Entries that name no chip stay as they were typed. Roles that were and are the parser's stay with it.
 */
export function withRole(chips, override, index, role) {
  const entries = readOverride(override);
  const roles = rolesOf(chips, override);
  const written = new Set([...entries.map((entry) => entry.role), role, roles[index]]);
  roles[index] = role;
  const others = entries.filter((entry) => !chips.some((chip) => names(entry, chip))).map((entry) => entry.source);
  const named = [];
  for (const each of ROLES.filter((name) => written.has(name))) {
    const prefix = each === "scene" ? "scene: " : "";
    chips.forEach((chip, i) => {
      if (roles[i] === each) named.push(prefix + chip.text + (chip.count > 1 ? `#${chip.nth}` : ""));
    });
  }
  return [...others, ...named].join(", ");
}
