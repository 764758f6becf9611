/**
 * The template browser: our templates in their order, with titles and descriptions in the language of the interface.
 *
 * The host lists a pack's templates by the names of their files, in no order. It has an index only of its own: ours joins
 * it. Without this, or in a front end that asks otherwise, they are listed by name.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { isChinese } from "./texts.js";

const PACK = decodeURIComponent(new URL(".", import.meta.url).pathname.split("/").at(-2)); // the folder's name
const index = fetch(new URL("templates.json", import.meta.url))
  .then((answer) => (answer.ok ? answer.json() : []))
  .catch(() => []);

const localized = (texts, language) => texts[language?.startsWith("zh") ? "zh" : "en"];

const { getWorkflowTemplates, getCoreWorkflowTemplates } = api;

if (getWorkflowTemplates && getCoreWorkflowTemplates) {
  api.getWorkflowTemplates = async () => {
    const { [PACK]: files = [], ...others } = await getWorkflowTemplates.call(api);
    const indexed = new Set((await index).map((entry) => entry.file));
    const left = files.filter((name) => !indexed.has(name));
    return left.length ? { ...others, [PACK]: left } : others;
  };
  api.getCoreWorkflowTemplates = async (language) => {
    const [core, entries] = await Promise.all([getCoreWorkflowTemplates.call(api, language), index]);
    if (!entries.length) return core;
    const templates = entries.map(({ file, title, description, tags }) => ({
      name: file,
      title: `${file.split(" ")[0]} ${localized(title, language)}`, // with its number, by which the notes name it
      description: localized(description, language),
      tags,
      mediaType: "image",
      mediaSubtype: "jpg",
    }));
    return [...core, { moduleName: PACK, title: PACK, type: "image", templates }];
  };
}

// What a template that was never opened has in its `extra`; a workflow that a user has saved lacks it.
const MARK = "explainable_latents";
let titles;

app.registerExtension({
  name: "explainable_latents.templates",
  /** The titles of a template's nodes and groups, too, in the language of the interface. */
  async beforeConfigureGraph(graph) {
    if (!graph?.extra?.[MARK]) return;
    delete graph.extra[MARK];
    if (!isChinese()) return;
    titles ??= fetch(new URL("titles.json", import.meta.url)).then((answer) => answer.json());
    const { zh } = await titles;
    for (const each of [...graph.nodes, ...graph.groups]) {
      if (each.title) each.title = zh[each.title] ?? each.title;
    }
  },
});
