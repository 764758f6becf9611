/** The guide (js/docs/guide.md) in the app: a command, which the Help menu has too. */

import { app } from "../../scripts/app.js";
import { createElement } from "./panel.js";
import { isChinese, translated } from "./texts.js";

const COMMAND = "explainable_latents.guide";

/** Opens the guide in the language of the interface, over the page; where the host renders no Markdown, as a text. */
async function open() {
  const folder = new URL("./docs/", import.meta.url).href;
  const url = folder + (isChinese() ? "guide/zh.md" : "guide.md");
  const render = app.extensionManager.renderMarkdownToHtml;
  if (!render) return window.open(url);
  const text = await (await fetch(url)).text();
  // The host's renderer lets nothing through that could run.
  const page = new DOMParser().parseFromString(render(text, folder.replace(/\/$/, "")), "text/html");
  const article = createElement("article", {}, ...page.body.childNodes);
  const dialog = createElement("dialog", { class: "el-guide", "aria-label": translated("Guide: Explainable Latents") });
  const close = { type: "button", text: translated("Close"), autofocus: "", on: { click: () => dialog.close() } };
  dialog.append(createElement("button", close), article);
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

app.registerExtension({
  name: COMMAND,
  commands: [{ id: COMMAND, label: () => translated("Guide: Explainable Latents"), icon: "pi pi-book", function: open }],
  menuCommands: [{ path: ["Help"], commands: [COMMAND] }],
});
