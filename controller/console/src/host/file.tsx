// One file: what it is like, and the text in its first part.

import { Navigate } from "@tanstack/react-router";
import type { Told } from "../api/answer";
import { useKinds } from "../api/queries";
import { fieldsOf } from "../kind/schema";
import { Values } from "../kind/values";
import { decoded, textIn } from "../output/bytes";
import { plain, visible } from "../output/text";
import { AnswerNotes } from "../query/answer_notes";
import { bytes } from "../ui/time";
import { KIND, numberOf, textOf, useHostAnswer } from "./asked";
import { Lines } from "./unit";

/** Bytes of a file that are read for a page. */
export const READ = 256 * 1024;

export function FileView({ host, path, hidden }: { host: string; path: string; hidden: string | undefined }) {
  const stat = useHostAnswer(host, KIND.fileStat, { path, dereference: true });
  const kind = useKinds().data?.find((known) => known.name === KIND.fileStat);
  const item = stat.answer.items()[0]?.item;
  const type = item && textOf(item, "type");
  const isFile = type === "file";
  const read = useHostAnswer(host, KIND.fileRead, isFile ? { path, length: READ } : undefined);
  if (type === "directory") {
    return (
      <Navigate
        to="/hosts/$name/files"
        params={{ name: host }}
        search={{ path, ...(hidden ? { hidden } : {}) }}
        replace
      />
    );
  }
  return (
    <>
      <AnswerNotes asking={stat} />
      {item && (
        <details className="file-part" open={!isFile}>
          <summary>
            {bytes(numberOf(item, "size") ?? 0)} · <code>{textOf(item, "mode")}</code> ·{" "}
            {visible(textOf(item, "owner"))}:{visible(textOf(item, "group"))}
          </summary>
          <Values values={item} fields={kind && fieldsOf(kind.answer)} />
        </details>
      )}
      {item && !isFile && <p className="muted">This is no regular file: there is no content to be read.</p>}
      {isFile && (
        <>
          <AnswerNotes asking={read} />
          <Content
            told={read.answer.items()}
            size={(item && numberOf(item, "size")) ?? 0}
            isWhole={read.answer.hosts.get(host)?.state === "ended"}
          />
        </>
      )}
    </>
  );
}

/** The bytes that were told, in their order; what is missing in between ends them. */
export function bytesOf(told: Told[]): Uint8Array {
  const pieces: Uint8Array[] = [];
  let end = 0;
  for (const { item } of told) {
    if (numberOf(item, "offset") !== end) continue;
    const piece = decoded(textOf(item, "data"));
    if (!piece) break;
    pieces.push(piece);
    end += piece.length;
  }
  const whole = new Uint8Array(end);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

export function Content({ told, size, isWhole }: { told: Told[]; size: number; isWhole: boolean }) {
  if (!isWhole) return null;
  const content = bytesOf(told);
  if (content.length === 0) return <p className="muted">The file is empty.</p>;
  const text = textIn(content);
  if (text === undefined) {
    return (
      <p className="notice" role="status">
        This is no text (UTF-8), so it is not shown. It begins with{" "}
        <code>{hex(content.subarray(0, 16))}</code>.
      </p>
    );
  }
  const lines = plain(text).replace(/\n$/, "").split("\n");
  return (
    <>
      {size > content.length && (
        <p className="notice small" role="status">
          The first {bytes(content.length)} of {bytes(size)} are shown.
        </p>
      )}
      <Lines lines={lines} />
    </>
  );
}

const hex = (content: Uint8Array): string =>
  [...content].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
