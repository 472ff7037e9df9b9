// Looks at the pages of tasks in a real browser and decides by clicks, with and without scripts, and prints
// as JSON what it saw. Reads PARETO_BASE, PARETO_TOKEN, PARETO_TASKS (JSON: names to ids of tasks that wait),
// PARETO_SCREENSHOTS, PARETO_BROWSER_KIT.
import { readFileSync } from "node:fs";
import { base, browser, examine, open as opened, out, picture, token } from "./kit.mjs";

const tasks = JSON.parse(process.env.PARETO_TASKS);
Object.assign(out, { notes: {} });
const open = (scheme, more) => opened("ana", scheme, more);

// What was planted in objectives, arguments and results is text: it has run nothing and made no element.
const innocent = async (page, path) => {
  const found = await page.evaluate(() => ({
    pwned: window.pwned, policy: window.policy,
    made: document.querySelectorAll("body script, body img, body textarea").length,
  }));
  if (found.pwned !== undefined || found.made || found.policy.length) out.errors.push(`${path}: ${JSON.stringify(found)}`);
};

const look = async (paths, scheme) => {
  const page = await open(scheme);
  for (const path of paths) {
    const response = await page.goto(base + path, { waitUntil: "load" });
    if (response.status() !== 200) out.errors.push(`${path}: ${response.status()}`);
    if (scheme === "light") out.weights.push([path, (await response.body()).length]);
    await innocent(page, path);
    await examine(page, `${scheme} ${path}`);
    const named = path.replace(/task_[0-9a-f]+/g, (id) => Object.keys(tasks).find((key) => tasks[key] === id) ?? id);
    await picture(page, named, scheme);
  }
  await page.context().close();
};
const of = (name) => `/tasks/${tasks[name]}`;
const expected = (what, is) => { if (!is) out.errors.push(`not so: ${what}`); };

// Everything while it waits, in light and dark.
const effects = await (await fetch(`${base}/api/v1/tasks/${tasks.long}/effects`, { headers: { authorization: `Bearer ${token}` } })).json();
const failed = effects.data.find((effect) => effect.tool === "lab__fail").id;
const paths = ["/tasks", "/tasks?status=requires_action&text=five", "/tasks?status=failed", "/approvals", of("long"),
  `${of("long")}?step=n1&effect=${encodeURIComponent(failed)}&zone=Europe/Berlin`, of("denied"), of("asks")];
await Promise.all([look(paths, "light"), look(paths, "dark")]);

// Without scripts: the list, the plan, what an act would change, and a yes by a click.
{
  const page = await open("light", { javaScriptEnabled: false });
  await page.goto(`${base}/tasks`);
  expected("all tasks are listed", await page.locator("table#tasks tbody tr").count() === 4);
  expected("what waits is counted", (await page.locator(".tile").first().textContent()).includes("4"));
  await page.fill("input[name=text]", "five STEPS");
  await page.click("form.filters button");
  expected("a text finds its task", await page.locator("table#tasks tbody tr").count() === 1);
  await page.locator("table#tasks tbody a").first().click();
  expected("a row leads to its task", page.url().includes(tasks.long));
  expected("the plan has five steps", await page.locator("rect.step").count() === 5);
  expected("and the table as well", await page.locator("table#steps tbody tr").count() === 5);
  const diff = await page.locator(".ask .diff").textContent();
  expected("the change is shown", diff.includes("\u2212 By: nobody yet") && diff.includes("+ By: Ana"));
  expected("arguments are text", (await page.locator(".ask pre").last().textContent()).includes("<script>window.pwned = 1</script>"));
  expected("it is named where it goes", (await page.locator(".ask").textContent()).includes("office__write_file"));
  await page.goto(`${base}/approvals`);
  expected("the oldest is first", (await page.locator(".ask .of").first().textContent()).includes("Five steps"));
  const asks = page.locator(".ask", { hasText: "Five steps" });
  await asks.getByRole("button", { name: "Approve", exact: true }).click();
  await page.waitForURL(/\/approvals$/);
  expected("it is decided", await page.locator(".ask", { hasText: "Five steps" }).count() === 0);
  await page.context().close();
}

// With scripts: what is typed outlasts renewals, a no shows without a reload.
{
  const page = await open("light");
  await page.goto(base + of("denied"));
  await page.fill(".ask input[name=reason]", "not \"this\" <week>");
  const renewed = await page.waitForResponse((response) => response.url().includes("part=asks"));
  out.notes.renewed = renewed.status();
  expected("what is typed stays", await page.inputValue(".ask input[name=reason]") === "not \"this\" <week>");
  // The enter key behind a reason is a no.
  await page.press(".ask input[name=reason]", "Enter");
  await page.waitForSelector("table#acts .mark.bad:has-text('denied')");
  await innocent(page, "denied");
  await page.context().close();
}

// An act is approved, dies, and what has become of it is said by a person; the page follows by itself.
{
  const page = await open("dark");
  await page.goto(base + of("unknown"));
  await page.evaluate(() => { window.before = true; });
  await page.getByRole("button", { name: "Approve", exact: true }).click();
  const happened = page.getByRole("button", { name: "It happened", exact: true });
  await happened.waitFor();
  await examine(page, "unknown");
  await happened.click();
  await page.waitForSelector("table#acts .mark.good:has-text('succeeded')");
  await innocent(page, "unknown");
  await page.context().close();
}

// With the keyboard alone, every link, field and button of a task is reached, and a question answered.
{
  const page = await open("light");
  await page.goto(base + of("asks"));
  const stops = "main a, main input:not([type=hidden]):not([type=radio]), main button, main summary, main [tabindex='0']";
  await page.locator("details").evaluateAll((all) => all.forEach((one) => { one.open = true; }));
  const wanted = await page.locator(stops).evaluateAll((all) => all.map((one, place) => {
    one.dataset.stop = String(place);
    return one.outerHTML.slice(0, 90);
  }));
  const seen = new Set();
  for (let stop = 0; stop < wanted.length + 40; stop += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => document.activeElement?.dataset?.stop);
    if (at !== undefined) seen.add(Number(at));
  }
  out.unreached = wanted.filter((_, place) => !seen.has(place));
  out.notes.stops = wanted.length;
  await page.locator("input[type=radio]").first().focus();
  await page.keyboard.press("Space");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => url.pathname === of("asks"));
  await page.waitForSelector(".ask", { state: "detached" });
  await page.context().close();
}

// The end of the first: it is looked at once more, artefacts and all.
{
  const page = await open("light");
  await page.goto(base + of("long"));
  await page.waitForSelector(".tiles .mark.good:has-text('completed')");
  const hash = await page.locator("section", { hasText: "Artefacts" }).locator("code").first().textContent();
  expected("artefacts have digests", /^[0-9a-f]{64}$/.test(hash));
  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("a[download]").first().click()]);
  expected("an artefact is loaded", readFileSync(await download.path(), "utf8").includes("# Minutes"));
  await page.context().close();
}
await look([of("long"), of("unknown"), "/approvals"], "light");

await browser.close();
process.stdout.write(JSON.stringify(out));
