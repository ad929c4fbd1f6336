import { useState } from "preact/hooks";

import { ApiError, json, messageOf, send } from "../api/http";
import { NoteLines } from "../parts/field";
import { usePoll } from "../parts/use-poll";

interface Job {
  id: string;
  state: string;
  position: number | null;
  step: number | null;
  steps: number | null;
  created_at: string;
}

const POLL_MS = 3000;
const SHOWN = 20;

/** One's own: those of the key that one has signed in with. A server without jobs has none to show. */
export function Jobs() {
  const [jobs, setJobs] = useState<Job[]>([]);
  const [error, setError] = useState<string>();
  const fail = (failure: unknown) => {
    if (failure instanceof ApiError && failure.status === 404) setJobs([]);
    else setError(messageOf(failure));
  };
  const load = () =>
    json<{ jobs: Job[] }>("jobs").then((found) => {
      setJobs(found.jobs);
      setError(undefined);
    }, fail);
  const cancel = (job: Job) => void send(`jobs/${encodeURIComponent(job.id)}`, { method: "DELETE" }).then(load, fail);
  usePoll(load, POLL_MS);
  if (jobs.length === 0) return null;
  return (
    <section class="card" aria-label="Jobs">
      <h2>
        Jobs <span class="quiet">of this key, the newest first</span>
      </h2>
      <ul class="plain">
        {jobs.slice(0, SHOWN).map((job) => (
          <JobRow key={job.id} job={job} onCancel={() => cancel(job)} />
        ))}
      </ul>
      {jobs.length > SHOWN && <p class="quiet">and {jobs.length - SHOWN} older ones, which GET /jobs lists</p>}
      <NoteLines id="jobs" notes={{ error }} />
    </section>
  );
}

const KINDS: Record<string, string> = { succeeded: "good", failed: "bad" };

function JobRow({ job, onCancel }: { job: Job; onCancel: () => void }) {
  const isLive = job.state === "queued" || job.state === "running";
  const name = job.id.slice(0, 8);
  return (
    <li class="row wrap">
      <code>{name}</code>
      <span class={`state ${KINDS[job.state] ?? ""}`}>{job.state}</span>
      <span class="quiet">
        {new Date(job.created_at).toLocaleTimeString()}
        {job.position !== null && ` · ${job.position} in the queue`}
        {job.step !== null && job.steps !== null && ` · step ${job.step} of ${job.steps}`}
      </span>
      {isLive && (
        <button class="quiet" aria-label={`Cancel ${name}`} onClick={onCancel}>
          Cancel
        </button>
      )}
    </li>
  );
}
