// Requests to the server of this page, and to no other; and jobs, which are followed until they are over.

export class Failure extends Error {}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { "x-unibrain": "1", ...options.headers }, redirect: "error" });
  } catch {
    throw new Failure("The server does not answer. Is `unibrain explore` still running?");
  }
  const text = await answer.text();
  let content;
  try {
    content = JSON.parse(text);
  } catch {
    throw new Failure(text.trim() || `The server answered ${answer.status}.`);
  }
  if (!answer.ok) throw new Failure(content.error ?? content.detail ?? `The server answered ${answer.status}.`);
  return content;
}

export const get = (path) => ask(path);

export const post = (path, body) =>
  ask(path, { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });

export const upload = (what, file) =>
  ask(`/api/uploads/${what}`, { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });

// What is being followed; a page that is closed gives all of it up.
const followed = new Set();
window.addEventListener("pagehide", () => followed.forEach((leave) => leave()));

// Starts a job and follows it. `done` resolves with what the request said and its result, or with null where it was
// stopped; `stop` gives it up, and the server cancels what nobody waits for.
export function start(path, body, onEvent = () => {}, onState = () => {}) {
  let key = null;
  let stopped = false;
  const leave = () => {
    if (key !== null) ask(`/api/jobs/${key}`, { method: "DELETE", keepalive: true }).catch(() => {});
    key = null;
    followed.delete(leave);
  };
  const follow = async () => {
    const first = await post(path, body);
    let state = first;
    let seen = 0;
    if (state.state !== "done") {
      key = state.job;
      followed.add(leave);
    }
    for (;;) {
      if (stopped) {
        leave();
        return null;
      }
      state.events.forEach(onEvent);
      seen += state.events.length;
      onState(state);
      if (["done", "failed", "cancelled"].includes(state.state)) {
        key = null;
        followed.delete(leave);
      }
      if (state.state === "done") {
        return { ...first, result: state.result };
      }
      if (state.state === "failed") throw new Failure(state.error);
      if (state.state === "cancelled") return null;
      state = await get(`/api/jobs/${state.job}?after=${seen}`);
    }
  };
  return {
    done: follow(),
    stop() {
      stopped = true;
      leave();
    },
  };
}
