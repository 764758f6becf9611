/** A colour of its own for each of the pack's socket types, and for their links. panel.css has the same for Nodes 2.0. */

import { app } from "../../scripts/app.js";

// Told apart with any colour blindness (Okabe and Ito 2008; of the layout: pink of the light scheme of Tol 2021).
const COLOURS = {
  EL_SUBJECTS: "#56b4e9",
  EL_ATTENTION: "#e69f00",
  EL_SALIENCY: "#f0e442",
  EL_MASKING: "#cc79a7",
  EL_REPORT: "#009e73",
  EL_CLASSIFIER: "#d55e00",
  EL_EDITOR: "#0072b2",
  EL_TRAJECTORY: "#999999",
  EL_LAYOUT: "#ffaabb",
};

/** Lets a table of colours by type have ours. A theme that is loaded later writes all types: none, or a colour. */
function addTo(table) {
  for (const [type, ours] of Object.entries(COLOURS)) {
    let theirs = "";
    const set = (colour) => (theirs = colour);
    Object.defineProperty(table, type, { get: () => theirs || ours, set, enumerable: true, configurable: true });
  }
}

app.registerExtension({
  name: "explainable_latents.sockets",
  setup() {
    addTo(app.canvas.default_connection_color_byType);
    addTo(app.canvas.constructor.link_type_colors);
  },
});
