/** Which workflow the run is of that the server tells about: the node of the same number may be that of another one. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const workflows = new Map(); // run -> the id of the workflow that it was queued from on this page
const unanswered = new Set(); // for each run that was queued and whose id is not here yet: when it is, or never will be
let run; // that is executed now

const queuePrompt = api.queuePrompt;
api.queuePrompt = function (number, data, ...rest) {
  const answer = queuePrompt.call(this, number, data, ...rest);
  const answered = answer
    .then(({ prompt_id }) => workflows.set(prompt_id, data.workflow?.id))
    .catch(() => {}) // whoever queued it hears of that
    .then(() => unanswered.delete(answered));
  unanswered.add(answered);
  return answer;
};

api.addEventListener("execution_start", ({ detail }) => {
  run = detail.prompt_id;
});

const inFront = () => (app.rootGraph ?? app.graph).id;

/** Whether a workflow is the one in front. Where its id is not known it counts as that. */
export const isInFront = (workflow, front = inFront()) => !workflow || workflow === front;

/**
 * Call `act(run)` if what the server tells now is of the workflow in front. The outputs of a node do not say it: those
 * from the server's cache may have been made for another workflow. At once, but where a run has begun before the answer
 * to its queueing is here: then after that.
 */
export function ifOfWorkflowInFront(act) {
  const told = run;
  const front = inFront();
  const decide = () => isInFront(workflows.get(told), front) && act(told);
  if (workflows.has(told) || !unanswered.size) decide();
  else Promise.all(unanswered).then(decide);
}
