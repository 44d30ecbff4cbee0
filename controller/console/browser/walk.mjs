// A person's walk through the console, in headless Chromium, against a real controller with real agents.
//
// Started by `tests/it/browser.rs`, which made the fleet. Arguments: URL, user, one-time password, folder for
// screenshots, token of a user who may only read, `nginx` where hosts have sites. Exits 0 if every step held; prints the step that did not.

import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [url, user, oneTimePassword, pictures, viewer, web] = process.argv.slice(2);
const password = "a password of my own";
/** What a dry run speaks of, and nobody makes. */
const rehearsed = join(tmpdir(), `fleetward-walk-${process.pid}.conf`);
mkdirSync(pictures, { recursive: true });

const browser = await chromium.launch({
  executablePath: process.env.FLEETWARD_CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
  ],
});
const context = await browser.newContext({ viewport: { width: 1360, height: 860 }, colorScheme: "light" });
context.setDefaultTimeout(15_000);
const complaints = [];
const watched = (page) => {
  page.on("pageerror", (error) => complaints.push(`page error: ${error.message}`));
  page.on("console", (message) => {
    // A refused request is what some steps are about; anything else in the console is a fault.
    if (message.type() === "error" && !message.text().includes("Failed to load resource"))
      complaints.push(message.text());
  });
  return page;
};
const page = watched(await context.newPage());

let current = "start";
const step = async (name, run) => {
  current = name;
  await run();
  console.log(`ok  ${name}`);
};
/** The same page in light, dark and at a phone's width. */
const picture = async (name) => {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.screenshot({ path: join(pictures, `${name}-${scheme}.png`) });
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 390, height: 844 });
  const overflow = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  assert.ok(overflow <= 0, `${name}: the page is ${overflow} px wider than a phone`);
  await page.screenshot({ path: join(pictures, `${name}-phone.png`) });
  await page.setViewportSize({ width: 1360, height: 860 });
};
const field = (label) => page.getByLabel(label, { exact: false });
const button = (name) => page.getByRole("button", { name });

try {
  await step("a page needs a login, and says what was wrong with a bad one", async () => {
    await page.goto(`${url}/hosts?search=host-1`);
    await field("User").fill(user);
    await field("Password").fill("not the password");
    await button("Log in").click();
    await page.getByRole("alert").waitFor();
    await picture("login");
  });

  await step("a one-time password must be changed", async () => {
    await field("Password").fill(oneTimePassword);
    await button("Log in").click();
    await page.getByRole("heading", { name: "Choose a password" }).waitFor();
    await field("One-time password").fill(oneTimePassword);
    await page.getByLabel("New password", { exact: true }).fill(password);
    await field("New password, again").fill(password);
    await button("Change the password").click();
  });

  await step("the login leads to where it was asked for", async () => {
    await page.getByRole("link", { name: "host-1", exact: true }).waitFor();
    assert.equal(new URL(page.url()).searchParams.get("search"), "host-1");
    await page.getByRole("searchbox").fill("");
    await page.getByRole("link", { name: "host-2", exact: true }).waitFor();
    await page.getByText("● Live").waitFor();
    await picture("hosts");
  });

  await step("a host shows what it is", async () => {
    await page.getByRole("link", { name: "host-1", exact: true }).click();
    await page.getByRole("heading", { name: "Machine" }).waitFor();
    await page.getByText("Kernel").waitFor();
    await picture("host");
  });

  await step("adding a host prints a command once", async () => {
    await page.goto(`${url}/hosts`);
    await button("Add a host").click();
    await field("Name").fill("web-9");
    await button("Add").last().click();
    await page.getByText("fleetward-agent enrol --controller").waitFor();
    await picture("enrol");
    await button("Done").click();
    await page.getByRole("link", { name: "web-9", exact: true }).waitFor();
  });

  await step("scripts come from the repository", async () => {
    await page.keyboard.press("g");
    await page.keyboard.press("s");
    await page.getByRole("link", { name: "Say hello" }).waitFor();
    await picture("scripts");
    await page.getByRole("link", { name: "Say hello" }).click();
    await page.getByText("#!/bin/bash").waitFor();
    await picture("script");
  });

  await step("a target that matches nothing is refused before the start", async () => {
    await button("Run…").click();
    await page.getByLabel("On", { exact: true }).fill("tag:nowhere");
    await page.locator(".field-error").waitFor();
    assert.ok(await page.getByRole("button", { name: /^Run/ }).last().isDisabled());
  });

  await step("targets are shown before anything starts", async () => {
    await page.getByLabel("On", { exact: true }).fill("host-* & !host-3");
    await page.getByText("2 hosts", { exact: true }).waitFor();
    await page.getByRole("textbox", { name: /^Arguments/ }).fill("--name 'two words'");
    await picture("run");
    await button("Run on 2 hosts").click();
  });

  await step("an operation is seen live, to its end", async () => {
    await page.getByRole("heading", { name: /^OP-\d+/ }).waitFor();
    await page.getByRole("heading", { name: /success/ }).waitFor();
    await page.getByRole("button", { name: /^host-2/ }).click();
    await page.getByText("hello two words", { exact: false }).last().waitFor();
    await picture("operation");
  });

  await step("an operation can be stopped", async () => {
    await page.goto(`${url}/scripts/forever`);
    await button("Run…").click();
    await page.getByLabel("On", { exact: true }).fill("host-1");
    await button("Run on 1 host").click();
    await page.getByText("tick 1", { exact: false }).waitFor();
    await picture("running");
    await button("Stop…").click();
    await button("Stop").last().click();
    await page.getByRole("heading", { name: /stopped/ }).waitFor();
  });

  await step(
    "a form is made from what a kind declares, and says what is wrong before anything starts",
    async () => {
      await page.goto(`${url}/operations`);
      await page.getByRole("link", { name: "OP-1", exact: true }).waitFor();
      await page.keyboard.press("d");
      await page.getByRole("combobox", { name: /^What/ }).selectOption("unit");
      await page.getByRole("combobox", { name: /^verb/ }).selectOption("restart");
      await page.getByRole("textbox", { name: /^unit/ }).fill("fleetward-walk.servic");
      await page.getByLabel("On", { exact: true }).fill("host-1");
      await page.getByText("is no type of unit", { exact: false }).waitFor();
      assert.ok(await page.getByRole("button", { name: /^Do it/ }).isDisabled());
      await page.getByRole("textbox", { name: /^unit/ }).fill("fleetward-walk.service");
      await button("Do it on 1 host").waitFor();
      await picture("do");
    },
  );

  await step("an action of any kind is seen like a script, with its parameters", async () => {
    await button("Do it on 1 host").click();
    // There is no such unit, and perhaps no service manager: it has to fail, and to say why.
    await page.getByRole("heading", { name: /^OP-\d+.*failed/ }).waitFor();
    await page.getByText("restart fleetward-walk.service", { exact: true }).first().click();
    await page.getByRole("definition").filter({ hasText: "fleetward-walk.service" }).waitFor();
    await picture("done");
    await page.getByRole("link", { name: "operations like it" }).click();
    await page.getByRole("button", { name: /^subject restart fleetward-walk.service/ }).waitFor();
    await page.locator("table.list tbody tr").first().waitFor();
    assert.equal(await page.locator("table.list tbody tr").count(), 1);
  });

  await step("a host shows its units, its log and its files, or why it does not", async () => {
    await page.goto(`${url}/hosts/host-1`);
    const places = page.getByRole("navigation", { name: "This host" });
    // There may be no service manager here: then the host says so, and can be asked again.
    for (const [name, shown] of [
      ["Units", "table.units, .notice"],
      ["Log", ".terminal, .notice"],
    ]) {
      await places.getByRole("link", { name }).click();
      await page.locator(shown).first().waitFor();
      await picture(name.toLowerCase());
    }
    await places.getByRole("link", { name: "Files" }).click();
    await page.getByRole("link", { name: "etc/", exact: true }).click();
    await page.getByRole("navigation", { name: "Path" }).getByText("etc").waitFor();
    await page.getByRole("link", { name: "passwd", exact: true }).waitFor();
    await picture("files");
    await page.getByRole("link", { name: "passwd", exact: true }).click();
    await page.locator(".source").getByText("root:", { exact: false }).first().waitFor();
    await picture("file");
    await page.getByRole("textbox", { name: "Path" }).fill("/bin/bash");
    await page.keyboard.press("Enter");
    await page.getByText("This is no text", { exact: false }).waitFor();
    await page.getByRole("textbox", { name: "Path" }).fill("/etc");
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "passwd", exact: true }).waitFor();
  });

  await step("a host shows its sites, whoever wrote them, or why it does not", async () => {
    await page.goto(`${url}/hosts/host-1`);
    const places = page.getByRole("navigation", { name: "This host" });
    await places.getByRole("link", { name: "Sites" }).click();
    if (web !== "nginx") {
      await page.locator(".notice, .empty").first().waitFor();
      return;
    }
    const row = (name) => page.locator("table.sites tbody tr").filter({ hasText: name });
    await row("shop").getByText("Fleetward").waitFor();
    await row("legacy-of-somebody-else").getByText("somebody else").waitFor();
    await row("old").getByText("not enabled").waitFor();
    await page
      .locator("table.certificates")
      .getByText(/\d+ days/)
      .waitFor();
    await picture("sites");
    await page.keyboard.press("/");
    await page.keyboard.type("customer-12");
    await row("shop").waitFor({ state: "detached" });
    await row("legacy-of-somebody-else").getByRole("link").click();
    await page.getByText("Fleetward changes only sites that it wrote", { exact: false }).waitFor();
    assert.equal(await page.locator("header.unit button").count(), 0);
    await page.locator("table.certificates").waitFor();
    await picture("site-foreign");
  });

  if (web === "nginx") {
    await step("what is done to a site is shown before it is, and tests only tell", async () => {
      await page.goto(`${url}/hosts/host-1/sites/shop`);
      await page.getByText("Connection refused", { exact: false }).first().waitFor();
      assert.ok(await button("Enable…").isDisabled());
      await picture("site");
      await button("Test…").click();
      await button("Show what would change").click();
      await page.getByRole("heading", { name: "What would change", exact: true }).waitFor();
      await page.getByText("Nothing would change", { exact: false }).waitFor();
      assert.equal(await button(/^Do it/).count(), 0);
      await page.keyboard.press("Escape");
      await button("Disable…").click();
      assert.equal(await page.getByRole("textbox", { name: /^name/ }).inputValue(), "shop");
      assert.equal(await page.getByRole("combobox", { name: /^verb/ }).inputValue(), "disable");
      assert.equal(await page.getByLabel("On", { exact: true }).inputValue(), "host-1");
      await button("Show what would change").click();
      await page.locator(".rehearsal").getByText("sites-enabled/shop", { exact: false }).first().waitFor();
      await picture("site-disable");
      await page.keyboard.press("Escape");
      await page.getByText("Connection refused", { exact: false }).first().waitFor();
    });

    await step(
      "a host without sites says so, and so does one whose owner does not want them seen",
      async () => {
        await page.goto(`${url}/hosts/host-2/sites`);
        await page.getByText("nginx has no sites on this host").waitFor();
        await page.goto(`${url}/hosts/host-3/sites`);
        await page.getByText("host-3 refused").first().waitFor();
        await picture("sites-refused");
      },
    );

    await step("who may only read sees sites, and nothing to do with them", async () => {
      const reading = await browser.newContext({ viewport: { width: 390, height: 844 } });
      reading.setDefaultTimeout(15_000);
      await reading.addCookies([{ name: "fleetward_session", value: viewer, url }]);
      const theirs = watched(await reading.newPage());
      await theirs.goto(`${url}/hosts/host-1/sites/shop`);
      await theirs.getByText("Connection refused", { exact: false }).first().waitFor();
      await theirs.screenshot({ path: join(pictures, "site-viewer-phone.png") });
      const offered = await theirs.locator("header button").allTextContents();
      assert.deepEqual(offered, []);
      await reading.close();
    });
  }

  await step("what a host would change is shown before it does", async () => {
    await page.goto(`${url}/kinds`);
    await page.getByRole("link", { name: "file", exact: true }).click();
    await page.getByRole("textbox", { name: /^path/ }).fill(rehearsed);
    await page.getByRole("combobox", { name: /^state/ }).selectOption("present");
    await page.getByRole("textbox", { name: /^content / }).fill("one\ntwo\n");
    await page.getByLabel("On", { exact: true }).fill("host-1 | host-2");
    await button("Show what would change").click();
    await page.getByRole("heading", { name: "What would change", exact: true }).waitFor();
    await page.locator(".diff .added").getByText("+two").waitFor();
    await picture("rehearsal");
    assert.ok(!existsSync(rehearsed), "a dry run made the file");
    await page.locator(".rehearsal").getByRole("link").click();
    await page.getByRole("heading", { name: /dry run/ }).waitFor();
    await picture("dry-run");
  });

  await step("a query of any kind is asked, and its answer is a table", async () => {
    await page.goto(`${url}/kinds/file-list?on=host-1`);
    await page.getByRole("textbox", { name: /^path/ }).fill("/etc");
    await button("Ask").click();
    await page.locator("table.items").getByText("passwd", { exact: true }).waitFor();
    await picture("ask");
  });

  await step("what is in a file is text in the answer to a query, too", async () => {
    await page.goto(`${url}/kinds/file-read?on=host-1`);
    await page.getByRole("textbox", { name: /^path/ }).fill("/etc/passwd");
    await button("Ask").click();
    await page.getByRole("log").getByText("root:", { exact: false }).first().waitFor();
    await picture("ask-file");
  });

  await step("a group is an expression under a name, to be run on like any other", async () => {
    await page.getByRole("link", { name: "Groups" }).click();
    await page.getByText("No groups yet").waitFor();
    await button("Add a group").click();
    await page.getByRole("textbox", { name: "Name" }).fill("everywhere");
    await page.getByRole("textbox", { name: "Hosts" }).fill("host-* & nobody:x");
    await page.getByText("unknown key", { exact: false }).waitFor();
    await page.getByRole("textbox", { name: "Hosts" }).fill("host-*");
    await page.locator(".preview strong").waitFor();
    await page.getByRole("textbox", { name: /^For/ }).fill("All that this walk has");
    await button("Save").click();
    await page.getByText("@everywhere").waitFor();
    await picture("groups");
    await button("Run a script…").click();
    assert.equal(await page.getByLabel("On", { exact: true }).inputValue(), "@everywhere");
    await page.locator(".preview strong").waitFor();
    await page.keyboard.press("Escape");
    await button("Change…").click();
    await button("Delete…").click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete", exact: true }).click();
    await page.getByText("No groups yet").waitFor();
  });

  await step("history keeps what ran", async () => {
    await page.getByRole("link", { name: "Operations" }).first().click();
    await page.getByRole("link", { name: "OP-1", exact: true }).waitFor();
    await picture("operations");
    await page.getByRole("link", { name: "Inventory" }).click();
    await page.getByText("In force").waitFor();
    await picture("inventory");
    await page.getByRole("link", { name: "Audit" }).click();
    await page.getByText("host.", { exact: false }).first().waitFor();
    await picture("audit");
  });

  await step("a page that does not exist says so", async () => {
    await page.goto(`${url}/nowhere`);
    await page.getByText("There is no such page").waitFor();
  });

  await step("nothing complained", async () => assert.deepEqual(complaints, []));
} catch (error) {
  await page.screenshot({ path: join(pictures, "failed.png") }).catch(() => {});
  console.error(`FAILED at "${current}" (${page.url()}): ${error.message}`);
  if (complaints.length > 0) console.error(complaints.join("\n"));
  process.exitCode = 1;
} finally {
  await browser.close();
}
