// Which permission something takes; who has not got it is told before a form is filled for nothing.

import { useMay, useMe } from "../api/queries";

export function Permission({ name }: { name: string }) {
  const isKnown = useMe().data !== undefined;
  const may = useMay();
  return (
    <>
      Takes the permission <code>{name}</code>
      {isKnown && !may(name) ? <strong className="warn-text">, which you do not have.</strong> : "."}
    </>
  );
}
