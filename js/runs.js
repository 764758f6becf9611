/** Which workflow the run is of that the server tells about: the node of the same number may be that of another one. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const workflows = new Map(); // run -> the id of the workflow that it was queued from on this page
let run; // that is executed now

const queuePrompt = api.queuePrompt;
api.queuePrompt = async function (number, data, ...rest) {
  const answer = await queuePrompt.call(this, number, data, ...rest);
  workflows.set(answer.prompt_id, data.workflow?.id);
  return answer;
};

api.addEventListener("execution_start", ({ detail }) => {
  run = detail.prompt_id;
});

/** Whether a workflow is the one in front. Where its id is not known it counts as that. */
export const isInFront = (workflow) => !workflow || workflow === (app.rootGraph ?? app.graph).id;

/**
 * Whether what the server tells now is of the workflow in front. The outputs of a node do not say it: those from the
 * server's cache may have been made for another workflow.
 */
export const isOfWorkflowInFront = () => isInFront(workflows.get(run));
