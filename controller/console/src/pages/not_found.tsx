import { Link } from "@tanstack/react-router";
import { Empty } from "../ui/notice";

export function NotFoundPage() {
  return (
    <Empty title="There is no such page">
      <p>
        It may have been renamed, or the link was cut short. Go to <Link to="/hosts">the hosts</Link>.
      </p>
    </Empty>
  );
}
